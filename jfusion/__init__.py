"""jfusion: multimodal remote sensing fusion in JAX.

A system that is ready to work is a pure function ``product = system(observation, model)``.
"""

from importlib.metadata import version

__version__ = version("jfusion")
