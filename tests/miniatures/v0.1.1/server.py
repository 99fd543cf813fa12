import json

from aiohttp import web


class Server:
    def __init__(self, routes):
        @routes.get("/system_stats")
        async def system_stats(request):
            device = {"name": "the device", "type": "cpu"}
            system_stats = {"devices": [device]}
            return web.json_response(system_stats)

        @routes.get("/about")
        async def about(request):
            return web.json_response(json.loads("{}"))
