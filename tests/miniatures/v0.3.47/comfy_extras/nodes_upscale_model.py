from comfy import model_management


class ImageUpscaleWithModel:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"

    def upscale(self, upscale_model, image):
        tile = 512
        while True:
            try:
                return (upscale_model(image, tile),)
            except model_management.OOM_EXCEPTION as e:
                tile //= 2
                if tile < 128:
                    raise e
