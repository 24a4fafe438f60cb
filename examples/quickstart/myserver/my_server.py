"""What the service my_python_server answers."""


def myendpoint1func():
    """The body of the answer to /myendpoint1."""
    return "1"
