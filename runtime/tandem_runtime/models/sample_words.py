"""The words of the sample model and which may follow which: a small grammar, so that greedy text reads as sentences.

Every word is one token, and its kind alone says what may come next; which word comes next is the weights' affair.
"""

from __future__ import annotations

from typing import Final

BOS: Final = "<|bos|>"
EOS: Final = "<|eos|>"
SPECIALS: Final = (BOS, EOS, "<|system|>", "<|user|>", "<|assistant|>")

_WORDS: Final = {
    "start": "The My Our Her His Their Your That This Every Another Each One Some",
    "adjective": "old young quiet clever brave gentle curious patient sleepy proud tired lonely cheerful careful "
    "hungry famous humble honest jolly kind lazy merry nervous polite shy strange wise witty bold calm eager faithful",
    "character": "fox sailor baker farmer teacher painter doctor gardener captain miller weaver piper robot otter "
    "badger owl heron hare shepherd pilot singer dancer poet king queen hunter builder printer student traveller "
    "neighbour stranger cat dog raven bear wolf giant wizard clerk",
    "adverb": "slowly quickly often never always gladly softly finally rarely secretly already almost soon still "
    "kindly boldly",
    "verb": "carries finds paints follows builds hides mends opens watches remembers forgets brings sells borrows "
    "keeps loses draws counts lifts polishes repairs studies collects cleans buries wants sees holds needs guards "
    "steals praises",
    "article": "the her his their your my",
    "quality": "golden silver wooden broken heavy tiny bright dusty frozen green red blue yellow hollow warm round "
    "narrow empty perfect rusty simple woven striped painted secret lost ancient shiny modern crooked",
    "thing": "lantern letter map key bell boat clock mirror violin basket candle book coin ladder window wheel kettle "
    "hammer blanket feather ribbon compass drum flute bottle button chair table cart apple pear loaf cup "
    "stone shell rope sail door song story",
    "preposition": "under near behind beside above below inside beyond before after across around",
    "place_article": "that this our its",
    "place": "bridge harbour river mountain forest valley village market tower castle island lake meadow orchard mill "
    "cottage library station street square church field desert hill cave shore ocean garden kitchen cellar attic barn",
    "link": "and while but because until although so whenever",
    "subject_article": "each one another some",
}

KINDS: Final = ("special", "eos", "fragment", "opening", *_WORDS, "comma", "end")
"""`special` are the marker tokens, `fragment` everything that is no word of ours, `opening` starts a reply."""

FOLLOWS: Final = {
    "special": {"opening": 0.0},
    "eos": {"opening": 0.0},
    "fragment": {"start": 0.0},
    "opening": {"adjective": 0.0, "character": 0.0},
    "start": {"adjective": 0.0, "character": 0.0},
    "adjective": {"character": 0.0},
    "character": {"verb": 0.0, "adverb": -0.3},
    "adverb": {"verb": 0.0},
    "verb": {"article": 0.0},
    "article": {"quality": 0.0, "thing": 0.0},
    "quality": {"thing": 0.0},
    "thing": {"preposition": 0.0, "comma": 1.0, "end": 1.5},
    "preposition": {"place_article": 0.0},
    "place_article": {"place": 0.0},
    "place": {"comma": 0.0, "end": 0.5},
    "comma": {"link": 0.0},
    "link": {"subject_article": 0.0},
    "subject_article": {"adjective": 0.0, "character": 0.0},
    "end": {"start": 0.0, "eos": 5.0},
}
"""Kind -> kinds that may follow, with what is added to their logits: standard deviations of the random part, before
the final norm makes it about a third."""


def words_by_kind() -> dict[str, list[str]]:
    """Kind -> words as they stand in text, with the blank before them where one belongs."""
    words = {kind: [f" {word}" for word in text.split()] for kind, text in _WORDS.items()}
    words["opening"] = [word.strip() for word in words["start"]]
    return words | {"comma": [","], "end": ["."]}
