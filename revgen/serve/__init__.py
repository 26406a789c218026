"""A web server that answers the OpenAI protocol; it needs the packages of ``revgen[serve]``."""
