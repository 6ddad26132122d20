"""Bridges to the attribution methods of other libraries."""
