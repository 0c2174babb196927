"""The dashboard: Streamlit over the REST API, which is all it reads.

__main__   starts it: settings, port, theme
app        the pages there are, and what is said when the API is away
views/     one module a page: thin Streamlit
client     the REST API as typed calls; keeps answers by their ETag
address    what the URL says: which video, days, segments
figures    Plotly figures of the API's answers; pure
sentences  the API's answers in words; pure
markup     HTML that Streamlit has no element for; pure
theme      colours, for Streamlit and for figures, light and dark
states     what is said where there is nothing to show, or not enough
"""
