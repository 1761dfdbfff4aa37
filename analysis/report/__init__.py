"""Results for people: text, tables and charts.

| module | holds |
|---|---|
| `text` | an evaluation as text and terminal tables |
| `geometry_tables`, `grid` | tables of cameras, depth and points; a table before it is drawn |
| `charts` | the six charts of an evaluation |
| `pareto_chart`, `time_chart` | size against damage; damage against time |
| `drawing` | the network with bits as colours |
"""
