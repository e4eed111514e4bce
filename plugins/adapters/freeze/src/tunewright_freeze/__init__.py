"""Train some layers and freeze the rest."""
