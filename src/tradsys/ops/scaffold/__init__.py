"""Packages of users: written from a template, one working part of each kind."""
