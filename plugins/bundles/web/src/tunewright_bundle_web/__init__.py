"""The workbench in the browser: the bundles text and serve, with its pages."""
