"""Relaxation, hull, novelty: is it a crystal that could exist?"""
