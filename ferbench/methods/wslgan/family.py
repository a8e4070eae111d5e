"""What WS-LGAN is to the rest of ferbench."""

from ferbench.methods.interface import Family
from ferbench.methods.wslgan.recipe import Recipe


class WSLGANFamily(Family):
    """Stage 1 learns attention maps from attributes, stage 2 pre-trains on wild faces and fine-tunes on each fold."""

    recipe = Recipe


FAMILY = WSLGANFamily()
