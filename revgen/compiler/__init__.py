"""The compiler records an equation as a program, from which other representations are generated."""

from revgen.compiler.program import Cost, Operation, Program
from revgen.compiler.tracer import trace

__all__ = ["Cost", "Operation", "Program", "trace"]
