"""metrics.jsonl, one JSON object a logging step."""
