"""What the columns of a scene's tables mean to the kernels: materials, sky and lights, and the patterns of textures."""

PLAIN, CHECKER, STRIPES, BRICKS, SPECKLE, PRINT, WOOD, LEAF = range(8)  # patterns
# columns of a row
KIND, COLORS, SCALE, RATIO, WARP, CONTRAST, DETAIL, SEED, GLOSS, POLISH, BUMP, THIN, NUM_COLUMNS = (
    *(0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20),
)
MIRROR = 150.0  # exponent of the highlights above which a material mirrors its surroundings, too

# of the sky
ZENITH, HORIZON, GROUND, CLOUDS, SKY_SEED, HAZE, SUN, GLOW, AMBIENT, NUM_SKY = 0, 3, 6, 9, 10, 11, 12, 15, 16, 17
# of a light; a sun has a direction and an angular radius, a lamp a position and a radius
IS_LAMP, PLACE, RADIUS, COLOR, NUM_LIGHT = 0, 1, 4, 5, 8
