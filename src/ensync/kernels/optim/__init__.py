"""Optimiser steps over flat vectors."""
