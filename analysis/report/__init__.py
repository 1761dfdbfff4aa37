"""Results for people: text, tables and charts.

| module | holds |
|---|---|
| `document` | what a report says, apart from how it is drawn |
| `renderers` | how that is drawn: one a module |
| `text` | an evaluation as text and terminal tables |
| `evaluation_tables`, `geometry_tables` | its tables: size, time, errors; cameras, depth and points |
| `experiment`, `parts` | what a run holds; the five parts of its report |
| `page`, `depth_slider` | the page of a run; its depth as pictures |
| `difference_charts` | how far depth and points are off, pixel by pixel |
| `comparison` | several runs side by side |
| `theme` | colours of all charts |
| `advice`, `expected` | which scheme for whom; what the guide expects |
| `wording` | words in the reader's language |
| `charts` | the six charts of an evaluation |
| `pareto_chart`, `time_chart` | size against damage; damage against time |
| `cost_panels`, `error_panels`, `chart_style` | each of them; what they share |
| `drawing` | the network with bits as colours |
"""
