"""The emotions, their one order, and the index map of every dataset.

The order is the paper's (Tables 3, 5 and 7 of Zhang et al. 2020): An Co Di Fe Ha Sa Su, then Ne.
Datasets disagree about both names and numbers; each map below is the dataset's own documentation.
"""

from collections.abc import Iterable

from ferbench.errors import DataError
from ferbench.text import suggestion

EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")

ABBREVIATIONS = {
    "anger": "An",
    "contempt": "Co",
    "disgust": "Di",
    "fear": "Fe",
    "happiness": "Ha",
    "sadness": "Sa",
    "surprise": "Su",
    "neutral": "Ne",
}

# CK+ ReadMe: 0 = neutral (never used in the emotion files), 1..7.
CKPLUS = {1: "anger", 2: "contempt", 3: "disgust", 4: "fear", 5: "happiness", 6: "sadness", 7: "surprise"}
# RAF-DB basic ReadMe: 1..7. The compound set uses 1..11 under the same file name.
RAFDB = {1: "surprise", 2: "fear", 3: "disgust", 4: "happiness", 5: "sadness", 6: "anger", 7: "neutral"}
# FER2013 (Goodfellow et al. 2015): 0..6.
FER2013 = {0: "anger", 1: "disgust", 2: "fear", 3: "happiness", 4: "sadness", 5: "surprise", 6: "neutral"}
# ckextended.csv: FER2013's numbers with contempt appended.
CKEXTENDED = {**FER2013, 7: "contempt"}
# What FER2013's column Usage says, and what its three parts are called here.
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
# AffectNet (Mollahosseini et al. 2017): 0..7; 8 = none, 9 = uncertain, 10 = no face are no emotions.
AFFECTNET = {
    0: "neutral",
    1: "happiness",
    2: "sadness",
    3: "surprise",
    4: "fear",
    5: "disgust",
    6: "anger",
    7: "contempt",
}
# ExpW (Zhang et al. 2018), label.lst: FER2013's numbers.
EXPW = FER2013
# SFEW 2.0 (Dhall et al. 2015): folder names.
SFEW = {
    "Angry": "anger",
    "Disgust": "disgust",
    "Fear": "fear",
    "Happy": "happiness",
    "Neutral": "neutral",
    "Sad": "sadness",
    "Surprise": "surprise",
}
# Oulu-CASIA: folder names.
OULU = {
    "Anger": "anger",
    "Disgust": "disgust",
    "Fear": "fear",
    "Happiness": "happiness",
    "Sadness": "sadness",
    "Surprise": "surprise",
}
# JAFFE: the two letters after the subject.
JAFFE = {
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happiness",
    "NE": "neutral",
    "SA": "sadness",
    "SU": "surprise",
}
# KDEF: AF = afraid; the other letters are JAFFE's, anger and disgust included.
KDEF = {
    "AF": "fear",
    "AN": "anger",
    "DI": "disgust",
    "HA": "happiness",
    "NE": "neutral",
    "SA": "sadness",
    "SU": "surprise",
}
# FERPlus vote columns, in the order of fer2013new.csv; "unknown" and "NF" (no face) are not emotions.
FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

_SYNONYMS = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
    "contemptuous": "contempt",
}

# CelebA attributes of the AMG's two branches (Table 1 of the paper).
PART_ATTRIBUTES = {
    "eyes": ("Bushy_Eyebrows", "Arched_Eyebrows", "Narrow_Eyes", "Eyeglasses"),
    "mouth": ("Big_Lips", "Mouth_Slightly_Open", "Smiling"),
}

# The 40 attributes of CelebA, in the order of list_attr_celeba.txt.
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)


def emotion(name: str) -> str:
    """Return the standard name of an emotion given in any usual spelling (``Happy`` → ``happiness``).

    Raises DataError for a word that is no emotion, with the nearest one that is.
    """
    word = name.strip().lower()
    word = _SYNONYMS.get(word, word)
    if word in EMOTIONS:
        return word
    raise DataError(f"unknown emotion {name!r}{suggestion(word, EMOTIONS, _SYNONYMS)}")


def in_order(names: Iterable[str]) -> list[str]:
    """Return emotion names sorted in the one order of :data:`EMOTIONS`."""
    return sorted(set(names), key=EMOTIONS.index)
