from .op import Assignment, assign
from .verify import Verification, verify

__all__ = ["Assignment", "Verification", "assign", "verify"]
