"""Questions whose answers can be checked: records, file formats, splits, prompts."""
