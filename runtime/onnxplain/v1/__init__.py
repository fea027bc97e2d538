"""The wire, version 1: code generated from proto/onnxplain/v1 (`python proto/generate.py`) and its codec."""

ERROR_KEY = "onnxplain-error"
"""Trailing metadata of a failed call: the class of the error, by its name in `onnxplain.errors`."""

SERVICE = "onnxplain.v1.Explainer"
"""Health is given for "", for the service, and for every model as "onnxplain.v1.Explainer/<model>"."""
