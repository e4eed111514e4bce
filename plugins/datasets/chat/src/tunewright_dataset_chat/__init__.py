"""Conversations and plain text from files, rendered, masked and tokenised."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunewright import Plugin, PluginOptions, hookimpl

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

    class Entry(PluginOptions):
        """One source: an item of the recipe's `data`, or of a list in `eval_data`."""

        path: str = Field(min_length=1)
        """a file, a folder of files, or a pattern such as data/*.jsonl, from the recipe's folder: .jsonl,
        .json, .csv, .tsv, .parquet, or .txt with one document a line"""
        format: str | None = None
        """how a record is read: the name of a format plugin; found from the first record where not named"""
        columns: dict[str, str] = Field(default_factory=dict)
        """the format's name for a column → its name in this source, such as {messages: dialogue}"""
        tags: dict[str, str] = Field(default_factory=dict)
        """the format's name for a key or a role → its name in this source, such as {assistant: bot}"""
        limit: int | None = Field(None, gt=0)
        """read only so many records from the start"""

    @hookimpl
    def build_dataset(self, run: "Run", request: "DataRequest") -> "Data":
        from tunewright_dataset_chat.build import build

        return build(run, request, self.options)

    def preview(self, run: "Run", request: "DataRequest", count: int) -> "Preview":
        """The first `count` rows as text with what is trained, and the lengths of all. For `data preview`."""
        from tunewright_dataset_chat.build import preview

        return preview(run, request, count)
