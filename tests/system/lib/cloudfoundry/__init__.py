"""A small Cloud Foundry for buildpacks of the classic ("v2") lifecycle.

buildpacks  other buildpacks, and how the platform unpacks one
staging     the builder: from an app to a droplet
container   the launcher: a droplet's processes in a container
vcap        the user that stages and runs apps
foundation  what a test uses: stage and push apps

https://docs.cloudfoundry.org/buildpacks/understand-buildpacks.html
"""
