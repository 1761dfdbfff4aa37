"""Results for people: text, tables and charts.

| module | holds |
|---|---|
| `document` | what a report says, apart from how it is drawn |
| `renderers` | how that is drawn: one a module |
| `text` | an evaluation as text and terminal tables |
| `profile_tables`, `plan_tables` | what a profile and a plan say, as tables |
| `evaluation_tables`, `geometry_tables` | its tables: size, time, errors; cameras, depth and points |
| `experiment`, `parts` | what a run holds; the five parts of its report |
| `page`, `page_charts`, `depth_slider` | the page of a run; its charts as values; its depth as pictures |
| `comparison` | several runs side by side |
| `theme` | colours of all charts |
| `wording` | words in the reader's language |
| `charts` | all that is drawn with matplotlib |
"""
