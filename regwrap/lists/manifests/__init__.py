"""Images in YAML that is no list of images: rendered manifests, other resources, values of charts. Pure.

One file a form: how an image is written, whatever the kind of the document. A form is a function that gets a mapping
and gives what it finds there; `forms.py` has them all. What looks like an image and cannot be read is a note, never
dropped in silence.
"""
