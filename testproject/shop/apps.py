"""Wiring of the shop."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Registers the app as ``shop``."""

    name = "testproject.shop"
    label = "shop"
