"""A fast tokenizer from a model of sentencepiece, with the same ids.

Pieces and merges are read by the converters of transformers, the rest (whitespace, prefix, bytes)
as the model's own settings say. What was made is held against the sentencepiece library on a text
before it is used: kinds of models that cannot be carried over are refused, not changed. In unigram
models, splits whose scores differ by a rounding error may be chosen otherwise (4 of 2,676 lines at
most, as tried); BPE gives the same ids throughout.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from transformers.convert_slow_tokenizer import generate_merges

from tunewright import RunError
from tunewright_hf.models.errors import NEEDS_TOKENIZERS, one_line

_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_UNKNOWN, _CONTROL, _DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6  # SentencePiece.Type
_SAMPLES = (
    "Hello, world! It's 3.14 and 1,000,000.",
    "  two  spaces\tand a tab\n\nand lines\r\n  ",
    "def f(x):\n    return {'a': x[0] ** 2}  # note\n",
    "你好，世界！今天天气怎么样？１２３",
    "Привет, мир. こんにちは 안녕하세요 مرحبا שלום नमस्ते สวัสดี",
    "Ünïcödé cafe\u0301 ﬁne ½ ™ …—“quoted”",
    "🙂👍🏽👨‍👩‍👧 𝔘𝔫𝔦 \u200b\ufeff",
    "",
    " ",
)


def convert(file: Path) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer, and the names of bos_token and so on. Raises RunError: no model of
    sentencepiece, or one whose ids a fast tokenizer does not give."""
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        problem = f"its tokenizer needs {error.name or 'sentencepiece'}"
        raise RunError(problem, place=str(file), hint=NEEDS_TOKENIZERS) from error
    with one_line("is no model of sentencepiece", str(file)):
        proto = vars(sentencepiece_model_pb2)["ModelProto"]()  # made when it is imported
        proto.ParseFromString(file.read_bytes())
        library = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    if proto.trainer_spec.model_type not in (_UNIGRAM, _BPE) or not proto.pieces:
        raise RunError("is neither BPE nor a unigram model", place=str(file))
    with one_line("cannot be made a fast tokenizer", str(file)):
        made = _tokenizer(proto)
    _compare(made, library, file)
    ids = {"bos": library.bos_id(), "eos": library.eos_id(), "unk": library.unk_id()}
    ids["pad"] = library.pad_id()
    names = {f"{key}_token": library.id_to_piece(n) for key, n in ids.items() if n >= 0}
    return made, names


def _tokenizer(proto: Any) -> Tokenizer:
    pieces, in_bytes = proto.pieces, proto.trainer_spec.byte_fallback
    unknown = next(number for number, each in enumerate(pieces) if each.type == _UNKNOWN)
    if proto.trainer_spec.model_type == _UNIGRAM:
        scored = [(each.piece, each.score) for each in pieces]
        model: Any = models.Unigram(scored, unk_id=unknown, byte_fallback=in_bytes)
    else:
        vocabulary = {each.piece: number for number, each in enumerate(pieces)}
        unmerged = {e.piece for e in pieces if e.type in (_UNKNOWN, _CONTROL, _UNUSED, _BYTE)}
        scores = {each.piece: each.score for each in pieces}
        merges = generate_merges(vocabulary, scores, unmerged)
        model = models.BPE(
            vocabulary,
            merges,
            unk_token=pieces[unknown].piece,
            fuse_unk=True,
            byte_fallback=in_bytes,
        )
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(_normalizers(proto))
    prefix = proto.normalizer_spec.add_dummy_prefix
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    for kind in (_CONTROL, _DEFINED):  # only the library's own are special
        made.add_tokens(
            [
                AddedToken(each.piece, normalized=False, special=kind == _CONTROL)
                for each in pieces
                if each.type == kind
            ]
        )
    return made


def _normalizers(proto: Any) -> list[Any]:
    spec = proto.normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [
            normalizers.Replace(Regex(r"\A +| +\z"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    return [*steps, normalizers.Replace(" ", "▁")]


def _compare(made: Tokenizer, library: Any, file: Path) -> None:
    """Raises RunError with the first text that gives other ids than the library's."""
    corpus = resources.files("tunewright_hf.models").joinpath("tiny_corpus.txt").read_text("utf-8")
    for text in (*_SAMPLES, *corpus.splitlines()):
        if made.encode(text, add_special_tokens=False).ids != library.encode(text):
            problem = f"a fast tokenizer made of it gives other ids for {text[:40]!r}"
            raise RunError(problem, place=str(file), hint="use a checkpoint with a tokenizer.json")
