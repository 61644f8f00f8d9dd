"""A coverage-guided fuzzer of the personality: programs that POKE memory and CALL the kernel, whatever comes of it.

``python -m tests.fuzz --seconds 600`` runs it; what reaches new lines of ``pyvmm/linux`` is kept in ``corpus/``, which
the tests play again.
"""
