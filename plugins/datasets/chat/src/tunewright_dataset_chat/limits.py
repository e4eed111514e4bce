"""Size limit of a record, and the name of the validation set."""

from tunewright import RowError

#: default limit in bytes: a small compressed file may hold one endless line, and a tokenizer needs
#: many times the memory of the text
MAX_RECORD_BYTES = 8 << 20


#: name of the evaluation set that is split off
VALIDATION = "validation"


def too_long(limit: int, place: str) -> RowError:
    hint = f"`dataset: {{name: chat, max_record_bytes: {2 * limit}}}` would take longer ones"
    return RowError(f"has a record of more than {limit:,} bytes", place=place, hint=hint)
