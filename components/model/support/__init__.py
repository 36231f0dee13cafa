"""Shared code of the tasks and methods: base class, pretrained folders, output heads, metrics, layers."""
