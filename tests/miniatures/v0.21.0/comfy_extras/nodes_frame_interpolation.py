from comfy import model_management


class FrameInterpolate:
    @classmethod
    def execute(cls, model, images, batch=8):
        result = []
        while len(result) < len(images) - 1:
            try:
                start = len(result)
                result += model(images[start:start + batch], images[start + 1:start + batch + 1])
            except model_management.OOM_EXCEPTION:
                if batch <= 1:
                    raise
                batch = max(1, batch // 2)
                model_management.soft_empty_cache()
        return result
