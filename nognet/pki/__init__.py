"""Certificates of the coordinator and keys of the sites."""
