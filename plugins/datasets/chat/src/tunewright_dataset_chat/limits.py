"""How much one record may hold."""

from tunewright import RowError

#: bytes of one record where the recipe says nothing: a small packed file may unpack to one endless
#: line, and a tokenizer needs many times as much memory as the text
MAX_RECORD_BYTES = 8 << 20


def too_long(limit: int, place: str) -> RowError:
    hint = f"`dataset: {{name: chat, max_record_bytes: {2 * limit}}}` would take longer ones"
    return RowError(f"has a record of more than {limit:,} bytes", place=place, hint=hint)
