"""riverrun's own line of migrations, `riverrun`: one module a version."""
