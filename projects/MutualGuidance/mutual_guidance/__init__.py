"""
Mutual Guidance for Anchor Matching (Zhang et al., ACCV 2020), as a Detectron2 project.

``from mutual_guidance import add_mutual_guidance_config`` registers the detectors with Detectron2.
Only that imports them, for ``mutual_guidance.assignment`` needs nothing but PyTorch.
"""

__all__ = ["add_mutual_guidance_config"]


def __getattr__(name: str) -> object:
    """Import what registers the detectors when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import config, modeling  # noqa: F401

    return config.add_mutual_guidance_config
