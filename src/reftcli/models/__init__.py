"""Base models: names, files, tokenizers, and the embedded tiny one."""
