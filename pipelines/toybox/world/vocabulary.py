"""The names of the drawn world: what can be in a picture and every word that a caption may use."""

ANIMALS = ("dog", "cat", "rabbit", "bird", "fish", "bear")
OBJECTS = ("mug", "backpack", "car", "teapot", "house", "chair", "clock")
KINDS = (*ANIMALS, *OBJECTS, "person")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (212, 58, 52),
    "orange": (242, 140, 44),
    "yellow": (248, 208, 66),
    "green": (78, 166, 84),
    "blue": (62, 116, 214),
    "purple": (140, 82, 190),
    "pink": (246, 146, 182),
    "brown": (128, 82, 52),
    "black": (50, 48, 56),
    "white": (244, 240, 232),
}
PATTERNS = ("plain", "striped", "spotted", "checkered")
ACCESSORIES = ("hat", "sunglasses", "scarf")
ACCESSORY_COLOURS = ("red", "yellow", "green", "blue", "purple", "pink", "black", "white")
SIZES = {"small": 0.74, "medium": 1.0, "large": 1.24}

PLACES = ("beach", "forest", "snow", "city at night", "desert", "room", "space", "meadow")
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "at the beach", "by the sea"),
    "forest": ("in the forest", "in a forest", "among the trees"),
    "snow": ("in the snow", "in a snowy field"),
    "city at night": ("in the city at night", "in a city at night"),
    "desert": ("in the desert", "in a desert"),
    "room": ("in a room", "in the living room", "indoors"),
    "space": ("in space", "in outer space"),
    "meadow": ("in a meadow", "in the meadow", "on the grass"),
}
PLACE_NOUNS: dict[str, tuple[str, ...]] = {
    "beach": ("a beach", "an empty beach"),
    "forest": ("a forest", "an empty forest"),
    "snow": ("a snowy field", "snow"),
    "city at night": ("a city at night", "an empty city at night"),
    "desert": ("a desert", "an empty desert"),
    "room": ("a room", "an empty room"),
    "space": ("space", "outer space"),
    "meadow": ("a meadow", "an empty meadow"),
}

STYLES = ("flat", "pencil", "watercolour", "pixel", "neon")
STYLE_NOUNS: dict[str, tuple[str, ...]] = {
    "flat": ("photo", "picture", "image", "drawing", "flat illustration"),
    "pencil": ("pencil sketch", "pencil drawing"),
    "watercolour": ("watercolour painting", "watercolour"),
    "pixel": ("pixel art picture", "pixel art image"),
    "neon": ("neon sign", "neon picture"),
}
STYLE_TAILS: dict[str, tuple[str, ...]] = {
    "flat": ("flat illustration", "flat style"),
    "pencil": ("pencil sketch", "pencil style"),
    "watercolour": ("watercolour style", "watercolour painting"),
    "pixel": ("pixel art", "pixel art style"),
    "neon": ("neon style", "neon lights"),
}

HAIR_STYLES = ("short", "long", "curly", "spiky", "bald")
HAIR_COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (44, 38, 42),
    "brown": (112, 70, 42),
    "blonde": (240, 204, 108),
    "red": (198, 82, 36),
    "grey": (168, 168, 172),
}
SKINS = ((255, 224, 196), (244, 202, 166), (226, 174, 132), (196, 140, 98), (152, 100, 68), (110, 72, 52))

RARE = ("sks", "ohwx", "zwx", "olis", "mth", "vtk")
_OTHER = (
    "a an the of in on at by and with to left right next side middle is no nobody there one two it its "
    "person man woman face portrait shirt hair beard glasses small large big medium hat sunglasses scarf "
    "wearing photo picture image drawing style art painting lights make add remove turn into put change "
    "color colour colours colors give that take off them background place edit keep same standing sitting "
    "close up view scene photograph stuffed animal toy plushie object thing subject holding beautiful "
    "good bad ugly blurry low quality high best worst cute happy old new grass sea snowy field trees "
    "outer living indoors "
)


def _words() -> tuple[str, ...]:
    found: list[str] = []
    tables = (PLACE_PHRASES, PLACE_NOUNS, STYLE_NOUNS, STYLE_TAILS)
    phrases = [phrase for table in tables for options in table.values() for phrase in options]
    names = [*KINDS, *COLOURS, *PATTERNS, *HAIR_STYLES, *HAIR_COLOURS, *STYLES, *PLACES]
    for text in (*names, *phrases, _OTHER, *RARE):
        found.extend(text.split())
    return tuple(dict.fromkeys(found))


WORDS = _words()
