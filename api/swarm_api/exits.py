"""Exit codes with a meaning of their own; all others are the user's."""

from typing import Final

TRAINING_FAILED: Final = 3
"""Of a synchronizer: training cannot go on, its last words say what to change. Starting again will not help."""

FENCED: Final = 84
"""Of a particle: another process is this particle now. Nobody is to blame."""

REFUSED: Final = 85
"""Of a particle: the synchronizer will not have it; its last words say why."""
