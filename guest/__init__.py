"""Recipes of templates and the agents that run inside guests: data, read by ``pyvmm.template``."""
