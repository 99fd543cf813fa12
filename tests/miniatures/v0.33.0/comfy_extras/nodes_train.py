import torch


class TrainSampler:
    def __init__(self, loss, optimizer):
        self.loss, self.optimizer = loss, optimizer

    def sample(self, model, batches):
        torch.cuda.empty_cache()
        for batch in batches:
            value = self.loss(model(batch))
            value.backward()
            self.optimizer.step()
            del value
            torch.cuda.empty_cache()
        return model
