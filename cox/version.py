"""The version of cox, on the ground: runs say which one wrote them."""

__version__ = "0.3.0"
