"""riverrun's own line of migrations, `riverrun`: one module per version."""
