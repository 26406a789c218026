"""Training of recurrent layers on CPUs as compiled code, which is made from the equation of a cell. Needs Numba."""
