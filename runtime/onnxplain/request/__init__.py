"""The steps of one request, in the order in which ``explain`` takes them."""
