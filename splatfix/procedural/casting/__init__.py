"""The ray caster: rays through triangles (``bvh``), ``textures`` of ``noise``, ``shading``, ``photos`` of a scene."""
