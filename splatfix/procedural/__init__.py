"""Procedural scenes: photos with exact cameras and depth that splatfix casts itself, as many as wanted.

A seed determines a scene. ``layouts`` has the kinds of scene; they put together ``things`` and ``plants`` from
``meshes`` and ``materials``, and ``paths`` places cameras. ``casting`` casts the photos. Scenes and photos are
dedicated to the public domain (CC0-1.0).
"""
