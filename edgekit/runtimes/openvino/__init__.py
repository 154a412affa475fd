"""OpenVINO's CPU plugin: .xml with .bin."""
