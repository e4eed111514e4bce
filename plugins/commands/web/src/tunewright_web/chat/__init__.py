"""Chats of the workbench: conversations in files, and the processes of models that answer."""
