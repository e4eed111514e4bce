"""Conversations and plain text from files, rendered, masked and tokenised."""

from typing import TYPE_CHECKING, Literal

from tunewright import Plugin, PluginOptions, hookimpl
from tunewright_dataset_chat.entry import Entry

if TYPE_CHECKING:
    from tunewright.run import Run
    from tunewright.types import Data, DataRequest
    from tunewright_dataset_chat.build import Preview


class Chat(Plugin):
    """Local files of conversations (for sft) or documents (for pretrain), as rows of token ids and labels."""

    class Options(PluginOptions):
        on_bad_row: Literal["error", "skip"] = "error"
        """a row that cannot be used ends the run with its file and line, or is left out and counted"""
        truncate: Literal["drop", "end", "turns"] = "drop"
        """conversations longer than max_length are dropped and counted, cut off at their end, or lose their
        oldest turns (never the system message); documents are split into rows of max_length tokens instead"""

    Entry = Entry

    @hookimpl
    def build_dataset(self, run: "Run", request: "DataRequest") -> "Data":
        from tunewright_dataset_chat.build import build

        return build(run, request, self.options)

    def preview(self, run: "Run", request: "DataRequest", count: int) -> "Preview":
        """The first `count` rows as text with what is trained, and the lengths of all. For `data preview`."""
        from tunewright_dataset_chat.build import preview

        return preview(run, request, count)
