"""Headrace: a serverless gateway. ARCHITECTURE.md tours the rooms in reading order."""

VERSION = "0.1.0"
