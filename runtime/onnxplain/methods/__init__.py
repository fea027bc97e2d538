"""The methods, one file each, and the explicit list of them. Pure numpy: no engine, no ONNX, no threads."""

from __future__ import annotations

from onnxplain.methods.cam import METHOD as CAM
from onnxplain.methods.deconvnet import METHOD as DECONVNET
from onnxplain.methods.eigen_cam import METHOD as EIGEN_CAM
from onnxplain.methods.grad_cam import METHOD as GRAD_CAM
from onnxplain.methods.grad_cam_plus_plus import METHOD as GRAD_CAM_PLUS_PLUS
from onnxplain.methods.gradient import METHOD as GRADIENT
from onnxplain.methods.gradient_x_input import METHOD as GRADIENT_X_INPUT
from onnxplain.methods.guided_backprop import METHOD as GUIDED_BACKPROP
from onnxplain.methods.guided_grad_cam import METHOD as GUIDED_GRAD_CAM
from onnxplain.methods.hires_cam import METHOD as HIRES_CAM
from onnxplain.methods.integrated_gradients import METHOD as INTEGRATED_GRADIENTS
from onnxplain.methods.layer_cam import METHOD as LAYER_CAM
from onnxplain.methods.method import Method
from onnxplain.methods.presets import offered
from onnxplain.methods.smooth_grad_cam_plus_plus import METHOD as SMOOTH_GRAD_CAM_PLUS_PLUS
from onnxplain.methods.smoothgrad import METHOD as SMOOTHGRAD
from onnxplain.methods.smoothgrad_squared import METHOD as SMOOTHGRAD_SQUARED
from onnxplain.methods.vargrad import METHOD as VARGRAD
from onnxplain.methods.x_grad_cam import METHOD as X_GRAD_CAM

METHODS: dict[str, Method] = {
    method.name: offered(method)
    for method in (
        GRADIENT,
        GRADIENT_X_INPUT,
        INTEGRATED_GRADIENTS,
        SMOOTHGRAD,
        SMOOTHGRAD_SQUARED,
        VARGRAD,
        GUIDED_BACKPROP,
        DECONVNET,
        CAM,
        GRAD_CAM,
        GUIDED_GRAD_CAM,
        GRAD_CAM_PLUS_PLUS,
        SMOOTH_GRAD_CAM_PLUS_PLUS,
        HIRES_CAM,
        LAYER_CAM,
        X_GRAD_CAM,
        EIGEN_CAM,
    )
}
"""Name -> method, in the order of documentation."""
